"""A client that treats a package cache as conda does: the same file operations in the same order.

It is written from the facts of conda's package_cache_data.py, path_actions.py, link.py, gateways/connection/download.py,
gateways/repodata and gateways/disk, so that a test can run many of them on a directory and see what conda's users see. It has
conda's races: no lock that conda does not take, no check that conda does not make, and no sleeps but conda's own.
What it leaves out touches no package cache: solving (it takes the closure of the dependencies), compiling `.pyc`, menus,
link scripts, `~/.conda/environments.txt`.
"""
