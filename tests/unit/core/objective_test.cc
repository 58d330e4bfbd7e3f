#include "core/objective/objective.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>

namespace epo {
namespace {

using ::testing::HasSubstr;

TEST(ObjectiveTest, NamesEachBadField) {
  ModelConfig config;
  config.layers = 3;
  config.intermediate_size = 160;
  for (const Objective good : {Objective{0, 0}, Objective{2, 159}}) {
    EXPECT_TRUE(ValidateObjective(good, config).empty());
  }
  for (const int layer : {-1, 3, INT_MIN, INT_MAX}) {
    const FieldViolations bad = ValidateObjective({layer, 0}, config);
    ASSERT_EQ(bad.size(), 1U) << layer;
    EXPECT_EQ(bad[0].field, "neuron.layer");
    EXPECT_THAT(bad[0].description, HasSubstr(std::to_string(layer)));
    EXPECT_THAT(bad[0].description, HasSubstr("from 0 to 2"));
  }
  for (const int neuron : {-1, 160, INT_MIN, INT_MAX}) {
    const FieldViolations bad = ValidateObjective({2, neuron}, config);
    ASSERT_EQ(bad.size(), 1U) << neuron;
    EXPECT_EQ(bad[0].field, "neuron.neuron");
    EXPECT_THAT(bad[0].description, HasSubstr(std::to_string(neuron)));
    EXPECT_THAT(bad[0].description, HasSubstr("from 0 to 159"));
  }
  const FieldViolations both = ValidateObjective({-5, 4000}, config);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].field, "neuron.layer");
  EXPECT_EQ(both[1].field, "neuron.neuron");
}

}  // namespace
}  // namespace epo
