"""Odd messages and odd answers of servers, thousands of them, through living hosts; good bookings in between."""
