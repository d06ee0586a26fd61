"""BN section 4.1 and Figure 1 at their own size: a small sigmoid network on MNIST."""
