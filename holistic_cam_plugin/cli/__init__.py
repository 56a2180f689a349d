"""The command line, in the order in which a run goes: arguments -> models -> layers -> images -> explain -> figure."""
