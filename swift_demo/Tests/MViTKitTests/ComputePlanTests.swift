import MViTKit
import Testing

@Suite("The compute plan's summary")
struct ComputePlanTests {
  private let conv = "ios17.conv"

  @Test("shares follow the estimated cost")
  func weighted() {
    let plan = ComputePlanSummary([
      PlannedOperation(name: conv, device: .neuralEngine, weight: 0.3),
      PlannedOperation(name: conv, device: .neuralEngine, weight: 0.3),
      PlannedOperation(name: "ios17.softmax", device: .cpu, weight: 0.2),
    ])
    #expect(plan.isWeighted)
    #expect(plan.shares.map(\.device) == [.neuralEngine, .cpu])
    #expect(plan.shares.map(\.operations) == [2, 1])
    #expect(abs(plan.shares[0].work - 0.75) < 1e-12)
    #expect(plan.elsewhere == ["ios17.softmax": 1])
  }

  @Test("without costs operations are counted")
  func counted() {
    let plan = ComputePlanSummary(
      [ComputeDevice.gpu, .cpu, .gpu, .gpu].map {
        PlannedOperation(name: conv, device: $0, weight: nil)
      })
    #expect(!plan.isWeighted)
    #expect(plan.shares.map(\.work) == [0.75, 0.25])
  }

  @Test("a program without operations has no shares")
  func empty() {
    #expect(ComputePlanSummary([]).shares.isEmpty)
  }
}
