"""Images: decode bytes, scale and crop pixels, and describe both to the native extension."""
