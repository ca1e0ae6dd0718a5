"""Two teachers on one PostgreSQL, killed and stopped at each point at which their work can be torn apart."""
