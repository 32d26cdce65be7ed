"""How a tool is declared, listed, called, asked about, rendered and refused. Knows no single tool."""
