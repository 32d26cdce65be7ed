"""What GPU types cost: on the market as it is now, and as it was read before."""
