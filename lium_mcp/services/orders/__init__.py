"""Standing orders: rents that wait for an offer, agreed to once."""
