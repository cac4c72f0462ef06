# The module is made where it is imported (see namespace.py); this says what it has.
from torch.utils.data import get_worker_info as get_worker_info

from headrace.torch import DataLoader as DataLoader
from headrace.torch import default_collate as default_collate
from headrace.torch import default_convert as default_convert
