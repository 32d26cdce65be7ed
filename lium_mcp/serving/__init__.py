"""How clients reach the server: over standard input and output or HTTP, with sessions and keys of their own."""
