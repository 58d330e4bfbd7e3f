// Addresses to listen on.
#ifndef EPO_SERVER_LISTEN_ADDRESS_H_
#define EPO_SERVER_LISTEN_ADDRESS_H_

#include <string>

namespace epo {

// Why nobody can listen on HOST:PORT, in the system's words: neither gRPC nor civetweb tells.
std::string WhyNotListening(const std::string& listen);

// Whether HOST:PORT can be reached from this machine alone.
bool IsLoopback(const std::string& listen);

}  // namespace epo

#endif  // EPO_SERVER_LISTEN_ADDRESS_H_
