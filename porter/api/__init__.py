"""What porter can do, as functions. Each command of the command line renders one of these."""
