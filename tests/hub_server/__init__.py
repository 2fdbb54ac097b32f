"""A loopback server that speaks the Hub's protocol over real git repositories, for tests of pushing and pulling."""
