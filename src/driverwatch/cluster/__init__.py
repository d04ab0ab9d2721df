"""The command line's own verbs as tasks on other machines: started there, watched, brought home. Ray carries them."""
