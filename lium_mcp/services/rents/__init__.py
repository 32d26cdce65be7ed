"""What one rent is, from the wish to the pods that bill: offers, prices, the plan, the renting of one or of several."""
