"""``parteq points``: the commands on point clouds and molecules, a file each."""
