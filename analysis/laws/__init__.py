"""Laws: how a number depends on the axes of a study."""
