"""For clients that only speak plain HTTP: httpx loads all certificate authorities for each client, 30 ms of a processor."""

import ssl

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""`httpx.AsyncClient(verify=NO_TLS)`: knows no authority, so it trusts nobody."""
