"""Simulation, fitting and plotting for the course *Beyond Parallel Lines*.

Import the modules by name, for example ``from helpers import mixed, plots, simulate``.
"""
