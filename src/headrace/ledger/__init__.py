"""What a training loop has received, written down; what that proves; where two runs part."""
