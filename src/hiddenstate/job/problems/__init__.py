"""Problems with known answers: made on the spot, scored at every length."""
