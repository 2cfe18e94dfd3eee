"""The paper's claims, and what retuning is worth, measured on photographs."""
