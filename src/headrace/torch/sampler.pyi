# The module is made where it is imported (see namespace.py); this says what it has.
from torch.utils.data.sampler import *  # noqa: F403
