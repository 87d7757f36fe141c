"""What the package is for, each in one short program."""
