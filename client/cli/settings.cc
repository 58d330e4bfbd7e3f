#include "client/cli/settings.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <fstream>

namespace epo::cli {

std::string ProfilePath() {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config != '\0') {
    return absl::StrCat(config, "/epo/config.toml");
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.config/epo/config.toml");
}

absl::StatusOr<PartialSettings> ReadProfile(const std::string& path) {
  PartialSettings profile;
  std::ifstream file(path);
  if (!file) return profile;
  for (const CLI::ConfigItem& item : CLI::ConfigTOML().from_config(file)) {
    std::optional<std::string>* value = item.fullname() == "server"   ? &profile.server
                                        : item.fullname() == "output" ? &profile.output
                                                                      : nullptr;
    if (value == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": unknown key '", item.fullname(),
                                                     "'; the keys are server and output"));
    }
    if (item.inputs.size() != 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": ", item.name, ": one string is wanted, as in ", item.name, " = \"...\""));
    }
    *value = item.inputs.front();
  }
  return profile;
}

absl::StatusOr<Settings> ResolveSettings(const PartialSettings& flags,
                                         const PartialSettings& environment,
                                         const PartialSettings& profile) {
  const auto first = [&](auto field) {
    return flags.*field ? flags.*field : environment.*field ? environment.*field : profile.*field;
  };
  Settings settings;
  if (const auto server = first(&PartialSettings::server)) {
    if (server->empty()) {
      return absl::InvalidArgumentError(
          "the server's address is empty; give HOST:PORT to --server, EPO_SERVER or the profile");
    }
    settings.server = *server;
    if (server->find(':') == std::string::npos) settings.server += ":50051";
  }
  if (const auto output = first(&PartialSettings::output)) {
    if (*output == "table") {
      settings.format = Format::kTable;
    } else if (*output == "json") {
      settings.format = Format::kJson;
    } else if (*output == "jsonl") {
      settings.format = Format::kJsonl;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("output format '", *output, "' is none of table, json and jsonl"));
    }
  }
  return settings;
}

}  // namespace epo::cli
