"""The last metre: what is done to a batch in front of the loop that reads it, such as a copy to a device."""
