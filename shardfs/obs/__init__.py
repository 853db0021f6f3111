"""What the daemons count and say."""
