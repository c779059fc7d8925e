"""The literature's headline results, in small: experiments that anyone can run again, and the evidence they leave."""
