"""The stages of the pipeline: each turns one record into the next and imports no other stage."""
