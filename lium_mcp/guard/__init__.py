"""What an agent may do: limits on money and time, the question to a person, and what never comes out."""
