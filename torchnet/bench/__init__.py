"""How fast the backend network is: what people ask for, what the workers measure, and what it says."""
