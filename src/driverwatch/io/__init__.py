"""Files in and out: pages of HTML."""
