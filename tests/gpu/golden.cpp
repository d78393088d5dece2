// The layer against 60-digit results, in C++, on the CPU or on a GPU:
//
//   golden tests/golden.json cpu|gpu
//
// A line a case with its errors in ulp, then how many failed. Exit status 0
// means that all cases were within the guarantee.

#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "boost/property_tree/json_parser.hpp"
#include "boost/property_tree/ptree.hpp"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/proto/caffe.pb.h"

namespace {

typedef boost::property_tree::ptree Json;
using caffe::Blob;

const double kUlp = std::ldexp(1., -23);
const double kLimit = 4;  // ulp, the layer's guarantee

template <typename T>
std::vector<T> Numbers(const Json& json) {
  std::vector<T> numbers;
  for (const Json::value_type& item : json) {
    // Text that stands for a float exactly; strtod is not off, streams may be.
    numbers.push_back(static_cast<T>(
        std::strtod(item.second.get_value<std::string>().c_str(), NULL)));
  }
  return numbers;
}

void Fill(const Json& shape, const Json& values, Blob<float>* blob) {
  const std::vector<float> numbers = Numbers<float>(values);
  blob->Reshape(Numbers<int>(shape));
  CHECK_EQ(blob->count(), numbers.size());
  std::copy(numbers.begin(), numbers.end(), blob->mutable_cpu_data());
}

/// In ulp of scale, besides the floor; infinite where nothing may be off.
double InUlp(double error, double scale, double floor) {
  const double excess = std::abs(error) - floor;
  if (excess <= 0) {
    return 0;
  }
  const double ulp = excess / (kUlp * scale);
  return std::isnan(ulp) ? std::numeric_limits<double>::infinity() : ulp;
}

struct Errors {
  double loss, gradient;
  bool IsWithin(double limit) const {
    return loss <= limit && gradient <= limit;
  }
};

/// Forward and Backward of one case.
Errors Run(const Json& json) {
  caffe::LayerParameter param;
  CHECK(google::protobuf::TextFormat::ParseFromString(
      json.get<std::string>("layer"), &param));
  param.set_name("loss");
  param.set_type("SigmoidCrossEntropyWeightLoss");
  Blob<float> scores, targets, weight, loss;
  Fill(json.get_child("shape"), json.get_child("scores"), &scores);
  Fill(json.get_child("shape"), json.get_child("targets"), &targets);
  std::vector<Blob<float>*> bottom = {&scores, &targets}, top = {&loss};
  if (!json.get_child("weight").empty()) {
    Fill(json.get_child("weight.shape"), json.get_child("weight.data"),
         &weight);
    bottom.push_back(&weight);
  }
  std::vector<bool> propagate_down(bottom.size(), false);
  propagate_down[0] = true;

  const boost::shared_ptr<caffe::Layer<float>> layer =
      caffe::LayerRegistry<float>::CreateLayer(param);
  layer->SetUp(bottom, top);
  // What Backward does not write shows.
  std::fill_n(scores.mutable_cpu_diff(), scores.count(),
              std::numeric_limits<float>::quiet_NaN());
  layer->Forward(bottom, top);
  layer->Backward(top, propagate_down, bottom);

  const double expected = json.get<double>("loss");
  Errors errors = {InUlp(loss.cpu_data()[0] - expected, std::abs(expected),
                         json.get<double>("loss_floor")),
                   0};
  const std::vector<double> gradients = Numbers<double>(json.get_child("grad"));
  const std::vector<double> scales =
      Numbers<double>(json.get_child("grad_scale"));
  const std::vector<double> floors =
      Numbers<double>(json.get_child("grad_floor"));
  for (int i = 0; i < scores.count(); ++i) {
    errors.gradient =
        std::max(errors.gradient, InUlp(scores.cpu_diff()[i] - gradients.at(i),
                                        scales.at(i), floors.at(i)));
  }
  return errors;
}

bool SetMode(const std::string& mode) {
  if (mode == "cpu") {
    caffe::Caffe::set_mode(caffe::Caffe::CPU);
    return true;
  }
#ifndef CPU_ONLY
  if (mode == "gpu") {
    caffe::Caffe::SetDevice(0);
    caffe::Caffe::set_mode(caffe::Caffe::GPU);
    return true;
  }
#endif
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  FLAGS_minloglevel = google::GLOG_ERROR;
  FLAGS_logtostderr = true;
  if (argc != 3 || !SetMode(argv[2])) {
    std::fprintf(stderr, "usage: %s golden.json cpu|gpu\n", argv[0]);
    return 2;
  }
  Json cases;
  try {
    boost::property_tree::read_json(argv[1], cases);
  } catch (const boost::property_tree::json_parser_error& error) {
    std::fprintf(stderr, "golden: %s\n", error.what());
    return 2;
  }
  int failures = 0;
  Errors worst = {0, 0};
  for (const Json::value_type& item : cases) {
    const Errors errors = Run(item.second);
    failures += !errors.IsWithin(kLimit);
    worst.loss = std::max(worst.loss, errors.loss);
    worst.gradient = std::max(worst.gradient, errors.gradient);
    std::printf("%-8s%-28s loss %5.2f ulp, gradient %5.2f ulp\n",
                errors.IsWithin(kLimit) ? "ok" : "FAILED",
                item.second.get<std::string>("name").c_str(), errors.loss,
                errors.gradient);
  }
  std::printf(
      "%d golden cases on the %s, %d failures: loss %.2f ulp, gradient %.2f "
      "ulp\n",
      static_cast<int>(cases.size()), argv[2], failures, worst.loss,
      worst.gradient);
  return failures != 0 || cases.empty();
}
