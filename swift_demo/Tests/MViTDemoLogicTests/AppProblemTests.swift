import MViTKit
import Testing

@testable import MViTDemoLogic

@Suite("What the app says when it cannot answer")
struct AppProblemTests {
  private let problems: [AppProblem] = [
    .cameraDenied, .cameraUnavailable, .cameraInterrupted(.multitasking), .cameraFailed, .noModel,
    .badModel(name: "A", reason: "broken"),
    .badPhoto(reason: "empty"), .failedPrediction(reason: "memory"),
  ]

  @Test("every problem has a title, a message, a symbol and a way out")
  func complete() {
    for problem in problems {
      #expect(!problem.title.isEmpty && !problem.message.isEmpty && !problem.symbol.isEmpty)
      #expect(!problem.remedies.isEmpty)
      #expect(problem.remedies.allSatisfy { !$0.title.isEmpty })
    }
    #expect(Set(problems.map(\.title)).count == problems.count)
  }

  @Test("a model that cannot be loaded is named, with the reason")
  func badModel() {
    let problem = AppProblem.badModel(name: "Segmenter", reason: "The model takes no image.")
    #expect(problem.title == "Segmenter Cannot Be Loaded")
    #expect(problem.message == "The model takes no image.")
    #expect(problem.remedies == [.retry, .openModel])
  }

  @Test("without the camera there is still the photo library")
  func cameraDenied() {
    #expect(AppProblem.cameraDenied.remedies == [.openSettings, .choosePhoto])
  }
}
