"""The one-machine stack: all components and servers as child processes of one command."""
