"""The names of the 5+1 phases, in the order in which training goes through them; studies are parsed without pandas."""

PHASES = ("random-like", "bleeding-out", "bulk+spikes", "bulk-decay", "heavy-tailed", "rank-collapse")
