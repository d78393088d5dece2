from .arrays import loss as loss
from .arrays import loss_and_grad as loss_and_grad

__version__: str
