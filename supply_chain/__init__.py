"""Checks of what the product is made from: advisories on dependencies, bill of materials."""
