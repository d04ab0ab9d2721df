"""The local page where one drops a photo: what may come in over HTTP, and what is answered."""
