import MViTKit
import SwiftUI

/// What went wrong and what to do about it.
struct ProblemView: View {
  let problem: AppProblem
  let act: @MainActor (AppProblem.Remedy) -> Void

  var body: some View {
    ContentUnavailableView {
      Label(problem.title, systemImage: problem.symbol)
    } description: {
      Text(problem.message)
    } actions: {
      ForEach(problem.remedies, id: \.self) { remedy in
        Button(remedy.title) { act(remedy) }
          .buttonStyle(.bordered)
      }
    }
  }
}
