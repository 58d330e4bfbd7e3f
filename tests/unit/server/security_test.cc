#include "server/security.h"

#include <gtest/gtest.h>

#include "server/listen_address.h"

namespace epo {
namespace {

TEST(SecurityTest, KnowsLoopback) {
  for (const char* address :
       {"127.0.0.1:50051", "127.8.9.1:0", "localhost:50051", "[::1]:50051", "::1:50051"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address :
       {"0.0.0.0:50051", "[::]:50051", "10.0.0.7:1", "gpu1:50051", "127.0.0.1.example.org:1",
        "localhost.example.org:1", "[::ffff:10.0.0.1]:1"}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(SecurityTest, BeyondLoopbackItWantsTlsAndToKnowClients) {
  const SecurityOptions none;
  SecurityOptions keys;
  keys.api_keys = "keys";
  SecurityOptions tls;
  tls.tls = {"cert", "key", ""};
  SecurityOptions mtls;
  mtls.tls = {"cert", "key", "ca"};
  SecurityOptions tls_and_keys = tls;
  tls_and_keys.api_keys = "keys";
  for (const SecurityOptions& options : {none, keys, tls, mtls, tls_and_keys}) {
    EXPECT_TRUE(CheckSecurity(options, "127.0.0.1:1").ok());
  }
  const char* world = "0.0.0.0:1";
  EXPECT_FALSE(CheckSecurity(none, world).ok());
  EXPECT_FALSE(CheckSecurity(keys, world).ok());
  EXPECT_FALSE(CheckSecurity(tls, world).ok());
  EXPECT_TRUE(CheckSecurity(mtls, world).ok());
  EXPECT_TRUE(CheckSecurity(tls_and_keys, world).ok());

  SecurityOptions insecure = none;
  insecure.insecure = true;
  EXPECT_TRUE(CheckSecurity(insecure, world).ok());
  // Keys in plain on the network are never right.
  insecure.api_keys = "keys";
  EXPECT_FALSE(CheckSecurity(insecure, world).ok());
}

}  // namespace
}  // namespace epo
