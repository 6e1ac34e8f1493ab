"""``parteq cryoem``: the commands on particles, a file each."""
