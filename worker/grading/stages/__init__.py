"""Pipeline stages: each turns one record of the flow into the next, and knows no other stage."""
