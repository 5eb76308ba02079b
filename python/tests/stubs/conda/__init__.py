"""Stands for conda, which is not to be had from PyPI: its plugin hooks as its documentation has them, and no more."""
