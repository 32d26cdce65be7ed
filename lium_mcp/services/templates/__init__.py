"""Templates and images: what they hold, and who uses them."""
