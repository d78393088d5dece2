#ifndef CAFFE_TEST_LOG_CAPTURE_HPP_
#define CAFFE_TEST_LOG_CAPTURE_HPP_

#include <string>
#include <vector>

#include "glog/logging.h"

#include "caffe/common.hpp"

namespace caffe {

/// Keeps what is logged at a severity while it lives.
class LogCapture : public google::LogSink {
 public:
  explicit LogCapture(google::LogSeverity severity) : severity_(severity) {
    google::AddLogSink(this);
  }
  virtual ~LogCapture() { google::RemoveLogSink(this); }
  virtual void send(google::LogSeverity severity, const char*, const char*, int,
                    const struct ::tm*, const char* message, size_t length) {
    if (severity == severity_) {
      messages_.push_back(string(message, length));
    }
  }
  const vector<string>& messages() const { return messages_; }

 private:
  const google::LogSeverity severity_;
  vector<string> messages_;
};

}  // namespace caffe

#endif  // CAFFE_TEST_LOG_CAPTURE_HPP_
