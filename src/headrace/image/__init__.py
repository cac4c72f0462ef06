"""Images: decode bytes, scale and crop pixels, and describe both to the native extension.

`decode` turns the bytes of one image file into pixels, for a dataset that reads files of its own, such as the one in
docs/contributing/add-a-format.md. `Decoding` is the same choice as one value, for the images of a native source.
"""

from headrace.image.decoder import decode
from headrace.image.decoding import Decoding

__all__ = ["Decoding", "decode"]
