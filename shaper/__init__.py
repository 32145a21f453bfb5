"""shaper: balance and shape traffic on a Linux gateway."""
