"""Cryo-EM: particle files of RELION, cryoSPARC and cryoDRGN, volumes, projection, the CTF, simulation."""
