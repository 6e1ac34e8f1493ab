"""``parteq histo``: the commands on images, a file each."""
