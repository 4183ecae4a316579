"""The command line. Each module is one command and imports its work when it runs."""
