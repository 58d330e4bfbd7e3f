// The flags that say how much is kept, and for how long.
#ifndef EPO_SERVER_STORE_OPTIONS_H_
#define EPO_SERVER_STORE_OPTIONS_H_

#include <CLI/App.hpp>

#include "server/options.h"

namespace epo {

// `options` must outlive the parsing.
void AddStoreOptions(CLI::App& app, ServerOptions& options);

}  // namespace epo

#endif  // EPO_SERVER_STORE_OPTIONS_H_
